-- Take the sessions that have expired out of an index; their hashes go by themselves.
-- KEYS: index. Returns how many.
return redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', whole(server_now()))
