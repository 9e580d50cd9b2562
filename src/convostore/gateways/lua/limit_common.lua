-- The common case, decided before anything else is made ready: windows that all admit the cost, with nothing to give
-- back, nobody blocked, and rings that are cut as they should be. Whatever is not so simple goes on below, and finds
-- everything untouched: to make the functions that this does without would cost more than the decision.
--
-- The ring is as limit_ring.lua has it: 'w', width, index of the newest counter, sum, then the counters.

local present, seen = now(), {} -- what has been read of each subject need not be read again below

-- Return a ring with the cost in it: key, field, the ring, its sum, its limit, when it is empty, whether that is new.
-- Return nothing if that is not so simple.
local function spent(at, cost, guarded)
  local number, limit, width, buckets = struct.unpack('>Bxddd', ARGV[at])
  local key, field = KEYS[number], string.sub(ARGV[at], 27)
  local stored = redis.call('HMGET', key, field, '@', '!')
  local raw, due, guard = stored[1], stored[2], guarded and stored[3]
  seen[at] = stored
  if due and tonumber(due) <= present or guard and struct.unpack('>d', guard, 25) > present then return nil end
  local index, count, newest, rest, opened = math.floor(present / width), cost, cost, '', true
  if raw then
    if string.byte(raw) ~= 119 then return nil end -- 'w'
    local stored_width, stored_index, sum, first = struct.unpack('>xI6I6I6I4', raw)
    local age = index - stored_index
    if stored_width ~= width then return nil end
    if age <= 0 then
      index, count, newest, rest, opened = stored_index, sum + cost, first + cost, string.sub(raw, 24), false
    elseif age <= buckets then
      local kept = buckets + 1 - age
      count, rest = sum + cost, string.rep('\0', age * 4 - 4) .. string.sub(raw, 20, 19 + kept * 4)
      for position = kept + 1, (#raw - 19) / 4 do count = count - struct.unpack('>I4', raw, 16 + position * 4) end
    end
  end
  if count > limit then return nil end
  local ring = struct.pack('>c1I6I6I6I4', 'w', width, index, count, newest) .. rest
  return {key, field, ring, count, limit, (index + buckets + 1) * width, opened}
end

local simple = string.byte(ARGV[1]) ~= 112 -- 'p'
for at = 3, #ARGV do simple = simple and string.byte(ARGV[at], 2) == 119 end
if simple then
  local cost, guarded, rings = tonumber(string.sub(ARGV[1], 2)), ARGV[2] ~= '', {}
  for at = 3, #ARGV do
    local ring = spent(at, cost, guarded)
    if not ring then break end
    rings[at - 2] = ring
  end
  if #rings == #ARGV - 2 then
    local reply = struct.pack('>dd', present, 0)
    for number = 1, #rings do
      local key, field, ring, count, limit, ends, opened = unpack(rings[number])
      redis.call('HSET', key, field, ring)
      if opened then keep(key, ends, present) end
      reply = reply .. struct.pack('>dddd', count, limit - count, 0, ends)
    end
    return reply
  end
end
