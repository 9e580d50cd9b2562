-- Store a session under an id that was never used, and make room for it if the user has too many.
-- KEYS: hash, index. ARGV: fingerprint, token, channel, user, milliseconds to the expiry, milliseconds to the end,
-- most sessions (0: any number), 'evict' or 'reject', then names and values of the hash.
-- Returns the moment it was stored; 0 if the id was used before; minus the number of sessions if there is no room.
local now = server_now()
if redis.call('EXISTS', KEYS[1]) == 1 then
  local mine = redis.call('HGET', KEYS[1], 'token') == ARGV[2] and expiry_of(KEYS[2], ARGV[1], now)
  return mine and tonumber(redis.call('HGET', KEYS[1], 'created_at')) or 0
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now))
local most, count = tonumber(ARGV[7]), redis.call('ZCARD', KEYS[2])
if most > 0 and count >= most then
  if ARGV[8] == 'reject' then
    return -count
  end
  local evicted = redis.call('ZPOPMIN', KEYS[2], count - most + 1)
  for place = 1, #evicted, 2 do
    redis.call('PUBLISH', ARGV[3], cjson.encode({'evicted', ARGV[4], evicted[place]}))
  end
end
local expiry = now + math.min(tonumber(ARGV[5]), tonumber(ARGV[6]))
redis.call('HSET', KEYS[1], unpack(ARGV, 9))
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'created_at', whole(now), 'last_activity_at', whole(now),
  'expires_at', whole(expiry), 'ends_at', whole(now + tonumber(ARGV[6])))
keep_until(KEYS[1], KEYS[2], ARGV[1], expiry)
return now
