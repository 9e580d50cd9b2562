-- Change the data of a session that lives, if it is at the version expected; count it as a use.
-- KEYS: hash, index. ARGV: fingerprint, token, version expected (0: any), milliseconds to live from now at least,
-- '1' to remove all data that is not given, number of fields to remove, these, then names and values.
-- Returns the JSON of its hash; false if there is none; the version if it is another.
local now = server_now()
local expiry = expiry_of(KEYS[2], ARGV[1], now)
local state = redis.call('HMGET', KEYS[1], 'version', 'token', 'idle')
if not expiry or not state[1] then
  return false
end
if state[2] == ARGV[2] then
  return content(KEYS[1]) -- this very call was here before
end
local version, expected = tonumber(state[1]), tonumber(ARGV[3])
if expected > 0 and expected ~= version then
  return version
end
if ARGV[5] == '1' then
  for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(name, 1, 5) == 'data:' then
      redis.call('HDEL', KEYS[1], name)
    end
  end
end
local values = 7 + tonumber(ARGV[6])
for place = 7, values - 1 do
  redis.call('HDEL', KEYS[1], ARGV[place])
end
redis.call('HSET', KEYS[1], 'version', whole(version + 1), 'token', ARGV[2], unpack(ARGV, values))
use(KEYS[1], KEYS[2], ARGV[1], now, expiry, math.max(tonumber(state[3]), tonumber(ARGV[4])))
return content(KEYS[1])
