"""Testing: what users of convostore need to test their own services on real servers, and while these fail.

Servers of one's own: ``ReplicaSet``, ``RedisPair``, ``RedisServer``, ``LocalCluster``, ``LocalSentinels``. What befalls
the way to a server: ``MongoProxy``, ``RedisProxy``. What befalls everything, by a schedule: ``Nemesis`` with
``mongodb_faults`` and ``redis_faults``. A wrong clock: ``skewed``.
"""

from convostore.testing.clock import skewed
from convostore.testing.faults import mongodb_faults, redis_faults
from convostore.testing.mongo_proxy import Fault, MongoProxy
from convostore.testing.nemesis import Entry, Nemesis, Step, StepFault
from convostore.testing.redis_groups import LocalCluster, LocalSentinels
from convostore.testing.redis_pair import RedisPair
from convostore.testing.redis_proxy import RedisProxy
from convostore.testing.redis_servers import RedisServer
from convostore.testing.replica_set import Member, ReplicaSet

__all__ = [
    "Entry",
    "Fault",
    "LocalCluster",
    "LocalSentinels",
    "Member",
    "MongoProxy",
    "Nemesis",
    "RedisPair",
    "RedisProxy",
    "RedisServer",
    "ReplicaSet",
    "Step",
    "StepFault",
    "mongodb_faults",
    "redis_faults",
    "skewed",
]
