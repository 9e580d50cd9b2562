-- Say how long an identity is blocked.
--
-- KEYS: the hash of the identity.
-- Reply: the present moment, the end of the block or 0, how often it has been blocked of late.

local present, raw = now(), redis.call('HGET', KEYS[1], '!')
local level, ends = 0, 0
if raw then
  local _, _, stored, last = struct.unpack(GUARD, raw)
  level, ends = stored, last > present and last or 0
end
return struct.pack('>ddd', present, ends, level)
