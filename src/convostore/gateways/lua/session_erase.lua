-- Take away what a session holds, whether it lives or not, and tell if it did; the mark of its used id stays.
-- KEYS: hash, index. ARGV: fingerprint, mark, channel. Returns 1 if it held anything.
local user = redis.call('HGET', KEYS[1], 'user_id')
if not user then
  return 0
end
local lived = expiry_of(KEYS[2], ARGV[1], server_now())
bury(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if lived then
  redis.call('PUBLISH', ARGV[3], cjson.encode({'ended', user, ARGV[1]}))
end
return 1
