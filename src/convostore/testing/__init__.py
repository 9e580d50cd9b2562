"""Testing: what users of convostore need to test their own services on real servers."""

from convostore.testing.mongo_proxy import Fault, MongoProxy

__all__ = ["Fault", "MongoProxy"]
