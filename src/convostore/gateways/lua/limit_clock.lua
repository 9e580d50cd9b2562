-- The server's clock in microseconds since 1970, and how long what is stored is kept.

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- Keep a key at least until a moment; its life is never shortened (EXPIRE ... GT needs Redis 7).
local function keep(key, moment, present)
  local life = math.ceil((moment - present) / 1000) + 1000
  if redis.call('PTTL', key) < life then redis.call('PEXPIRE', key, string.format('%.0f', life)) end
end
