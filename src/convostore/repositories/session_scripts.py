"""The scripts of sessions. Each carries a token or is guarded by what it leaves, so that none does its work twice."""

from typing import Final

from convostore.gateways.scripts import Script

_COMMON = ("session_common",)

GET: Final = Script("session_get", writes=False)
LIST: Final = Script("session_list", _COMMON, writes=False)
CREATE: Final = Script("session_create", _COMMON, repeatable=True)
WRITE: Final = Script("session_write", _COMMON, repeatable=True)
TOUCH: Final = Script("session_touch", _COMMON, repeatable=True)
ROTATE: Final = Script("session_rotate", _COMMON, repeatable=True)
DELETE: Final = Script("session_delete", _COMMON, repeatable=True)
ERASE: Final = Script("session_erase", _COMMON, repeatable=True)
REVOKE: Final = Script("session_revoke", _COMMON)
TRIM: Final = Script("session_trim", _COMMON)
