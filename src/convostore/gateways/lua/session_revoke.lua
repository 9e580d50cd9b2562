-- End all sessions of a user but one, in a time that does not depend on their number, and tell.
-- KEYS: index. ARGV: fingerprint of the one, or empty, channel, user. Returns how many lived.
local now = server_now()
local count = redis.call('ZCOUNT', KEYS[1], '(' .. whole(now), '+inf')
local spared = expiry_of(KEYS[1], ARGV[1], now)
redis.call('UNLINK', KEYS[1])
if spared then
  redis.call('ZADD', KEYS[1], whole(spared), ARGV[1])
  redis.call('PEXPIREAT', KEYS[1], whole(spared))
  count = count - 1
end
redis.call('PUBLISH', ARGV[2], cjson.encode({'all', ARGV[3], ARGV[1]}))
return count
