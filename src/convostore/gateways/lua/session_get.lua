-- Return a session that lives, as the JSON of its hash (one reply is read faster than one for each field).
-- KEYS: hash, index. ARGV: fingerprint.
local expiry = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not expiry then
  return false
end
local time = redis.call('TIME')
if tonumber(expiry) <= time[1] * 1000 + math.floor(time[2] / 1000) then
  return false
end
local fields = redis.call('HGETALL', KEYS[1])
return fields[1] and cjson.encode(fields) or false
