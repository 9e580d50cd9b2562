-- End a session, and tell.
-- KEYS: hash, index. ARGV: fingerprint, token, channel. Returns 1 if it lived.
local now = server_now()
if not expiry_of(KEYS[2], ARGV[1], now) then
  return redis.call('HGET', KEYS[1], 'gone') == ARGV[2] and 1 or 0 -- 1: this very call was here before
end
local user = redis.call('HGET', KEYS[1], 'user_id') or ''
bury(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
redis.call('PUBLISH', ARGV[3], cjson.encode({'ended', user, ARGV[1]}))
return 1
