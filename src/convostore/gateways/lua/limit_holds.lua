-- Holds: units taken beforehand, of which somebody will say how many were needed. One that is abandoned is given back
-- when its lease is over; whoever reads the hash next sees to it.
--
-- Field '@<id>': state, end of the lease, when it is forgotten, units, then field, width and place of each subject.
-- Field '@': the earliest end of a lease, or earlier.

local HELD, RETURNED, SETTLED = 1, 2, 3

-- Give back units that were taken at a place.
local function give(key, field, width, where, units)
  local raw = redis.call('HGET', key, field)
  if not raw then return end
  local kind = string.sub(raw, 1, 1)
  if kind == 'w' then
    raw = ring_give(raw, width, where, units)
  elseif kind == 's' then
    raw = smooth_give(raw, units)
  else
    raw = calendar_give(raw, where, units)
  end
  redis.call('HSET', key, field, raw)
end

-- Give back units of everything that a hold took in a hash.
local function give_all(key, hold, units)
  for at = 5, #hold, 3 do give(key, hold[at], hold[at + 1], hold[at + 2], units) end
end

-- Give back what leases that are over held, and forget what nobody will ask for any more.
local function heal(key, present)
  local stored, due = redis.call('HGETALL', key), nil
  for at = 1, #stored, 2 do
    local field = stored[at]
    if #field > 1 and string.sub(field, 1, 1) == '@' then
      local hold = cmsgpack.unpack(stored[at + 1])
      if hold[1] == HELD and hold[2] <= present then
        give_all(key, hold, hold[4])
        hold[1] = RETURNED
        redis.call('HSET', key, field, cmsgpack.pack(hold))
      end
      if hold[1] == HELD then
        due = math.min(due or hold[2], hold[2])
      elseif hold[3] <= present then
        redis.call('HDEL', key, field)
      end
    end
  end
  if due then
    redis.call('HSET', key, '@', string.format('%.0f', due))
  else
    redis.call('HDEL', key, '@')
  end
end
