-- Check several subjects, and take the cost from all of them if all admit it, else from none.
--
-- KEYS: the hashes of the identities.
-- ARGV: mode ('c': check; 'p': peek, take nothing; 'f': force, take in any case) and cost, the guard's numbers or
-- nothing; then the subjects, each packed in one.
-- Reply: the present moment, the end of a block or 0; then what is told of each subject.

local mode, cost = string.sub(ARGV[1], 1, 1), tonumber(string.sub(ARGV[1], 2))
local watched, guard = guard_of(ARGV[2])
local states, moments, admitted, blocked = {}, {}, true, 0
for at = 3, #ARGV do
  local state = subject(ARGV[at], present, seen[at])
  local moment = admitted_at(state, cost)
  states[#states + 1], moments[#moments + 1] = state, moment
  admitted = admitted and moment == 0
end
for number = 1, watched do blocked = math.max(blocked, blocked_until(KEYS[number], present)) end
if mode == 'f' or (mode == 'c' and admitted and blocked == 0) then
  for number = 1, #states do take(states[number], cost, present) end
elseif mode == 'c' and blocked == 0 then
  for number = 1, watched do
    local denied = false
    for at = 1, #states do denied = denied or (states[at].key == KEYS[number] and moments[at] > 0) end
    if denied then blocked = math.max(blocked, strike(KEYS[number], present, guard)) end
  end
end
local reply = struct.pack('>dd', present, blocked)
for number = 1, #states do reply = reply .. report(states[number], moments[number], present) end
return reply
