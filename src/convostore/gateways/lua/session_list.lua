-- Return the fingerprints of a user's sessions that live. KEYS: index.
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. whole(server_now()), '+inf')
