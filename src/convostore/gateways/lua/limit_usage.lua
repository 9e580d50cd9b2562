-- Read quotas of the calendar. Units that are only held do not count: some of them may yet be given back.
--
-- KEYS: the hashes of the identities.
-- ARGV: the subjects, each packed in one.
-- Reply: of each subject the number of the period, its count, the count of the one before.

local function held(key, field, period)
  local units, stored = 0, redis.call('HGETALL', key)
  for at = 1, #stored, 2 do
    if #stored[at] > 1 and string.sub(stored[at], 1, 1) == '@' then
      local hold = cmsgpack.unpack(stored[at + 1])
      for part = 5, #hold, 3 do
        local counts = hold[1] == HELD and hold[part] == field and hold[part + 2] == period
        units = units + (counts and hold[4] or 0)
      end
    end
  end
  return units
end

local present, reply = now(), ''
for at = 1, #ARGV do
  local state = subject(ARGV[at], present)
  local count, before = state.count, state.before
  if redis.call('HEXISTS', state.key, '@') == 1 then
    count = math.max(0, count - held(state.key, state.field, state.period))
    before = math.max(0, before - held(state.key, state.field, state.period - 1))
  end
  reply = reply .. struct.pack('>ddd', state.period, count, before)
end
return reply
