-- The guard against abuse: an identity that keeps being denied is blocked, each time twice as long as before.
--
-- Field '!': denials, the moment of the first of them, how often it has been blocked, end of the last block.

local GUARD = '>dddd'

local function blocked_until(key, present)
  local raw = redis.call('HGET', key, '!')
  if not raw then return 0 end
  local _, _, _, ends = struct.unpack(GUARD, raw)
  return ends > present and ends or 0
end

-- Return how many of the keys are watched (the first ones), and the packed numbers of the guard.
local function guard_of(packed)
  return string.byte(packed), string.sub(packed, 2)
end

-- Count a denial; return the end of the block that it leads to, or 0.
local function strike(key, present, packed)
  local most, within, block, longest = struct.unpack(GUARD, packed)
  local raw, ends = redis.call('HGET', key, '!'), 0
  local denials, since, level, last = 0, present, 0, 0
  if raw then denials, since, level, last = struct.unpack(GUARD, raw) end
  if present - since > within then denials, since = 0, present end
  if present - last > longest then level = 0 end
  denials = denials + 1
  if denials >= most then
    ends = present + math.min(block * 2 ^ level, longest)
    denials, since, level, last = 0, present, math.min(level + 1, 50), ends
  end
  redis.call('HSET', key, '!', struct.pack(GUARD, denials, since, level, last))
  keep(key, math.max(since + within, last > 0 and last + longest or 0), present)
  return ends
end
