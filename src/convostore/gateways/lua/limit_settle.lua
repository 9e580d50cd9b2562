-- Correct a hold to what was needed: the rest is given back, more is taken in any case.
--
-- KEYS: the hashes of the identities.
-- ARGV: id of the hold, units needed; then the subjects, each packed in one.
-- Reply: 1 if it was corrected, now or before; 0 if it is not known any more.

local id, units, present = '@' .. ARGV[1], tonumber(ARGV[2]), now()
local known, missing = 0, {}
for number = 1, #KEYS do
  local key = KEYS[number]
  local raw = redis.call('HGET', key, id)
  if raw then
    known = 1
    local hold = cmsgpack.unpack(raw)
    if hold[1] ~= SETTLED then
      local held = hold[1] == HELD and hold[4] or 0
      if units < held then give_all(key, hold, held - units) end
      missing[key] = math.max(0, units - held)
      hold[1], hold[3] = SETTLED, math.max(hold[2], present)
      redis.call('HSET', key, id, cmsgpack.pack(hold))
    end
  end
end
for at = 3, #ARGV do
  local state = subject(ARGV[at], present)
  local more = missing[state.key] or 0
  if more > 0 then take(state, more, present) end
end
return known
