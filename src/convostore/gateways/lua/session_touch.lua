-- Count a use of a session that lives. Nothing is written if that would win less than a twentieth of its idle time.
-- KEYS: hash, index. ARGV: fingerprint, milliseconds to live from now (0: its idle time).
-- Returns the JSON of its hash, or false.
local now = server_now()
local expiry = expiry_of(KEYS[2], ARGV[1], now)
local state = redis.call('HMGET', KEYS[1], 'idle', 'ends_at')
if not expiry or not state[1] then
  return false
end
local idle, asked = tonumber(state[1]), tonumber(ARGV[2])
local length = asked > 0 and asked or idle
local least = asked > 0 and 1 or idle / 20
if math.min(now + length, tonumber(state[2])) - expiry >= least then
  use(KEYS[1], KEYS[2], ARGV[1], now, expiry, length)
end
return content(KEYS[1])
