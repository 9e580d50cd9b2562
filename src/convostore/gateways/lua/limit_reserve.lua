-- Take an estimate from several subjects if all admit it, and remember where, so that it can be corrected.
--
-- KEYS: the hashes of the identities.
-- ARGV: id of the hold, units, microseconds of its lease, the guard's numbers or nothing; then the subjects, each
-- packed in one.
-- Reply: as of the check. A hold that is there already is told of, and takes nothing more.

local id, units, lease, present = '@' .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now()
local states, moments, admitted, blocked = {}, {}, true, 0
for at = 5, #ARGV do
  local state = subject(ARGV[at], present)
  local moment = admitted_at(state, units)
  states[#states + 1], moments[#moments + 1] = state, moment
  admitted = admitted and moment == 0
end
for number = 1, guard_of(ARGV[4]) do blocked = math.max(blocked, blocked_until(KEYS[number], present)) end
if redis.call('HEXISTS', KEYS[1], id) == 1 then
  admitted, blocked = true, 0
  for number = 1, #states do moments[number] = 0 end
elseif admitted and blocked == 0 then
  local ends, holds = present + lease, {}
  for number = 1, #states do
    local state = states[number]
    take(state, units, present)
    local hold = holds[state.key] or {HELD, ends, ends + lease, units}
    hold[#hold + 1], hold[#hold + 2] = state.field, state.width or 0
    hold[#hold + 1] = state.index or state.period or 0
    holds[state.key] = hold
  end
  for number = 1, #KEYS do
    local key = KEYS[number]
    redis.call('HSET', key, id, cmsgpack.pack(holds[key]))
    local due = redis.call('HGET', key, '@')
    if not due or tonumber(due) > ends then redis.call('HSET', key, '@', string.format('%.0f', ends)) end
    keep(key, ends + lease, present)
  end
end
local reply = struct.pack('>dd', present, blocked)
for number = 1, #states do reply = reply .. report(states[number], moments[number], present) end
return reply
