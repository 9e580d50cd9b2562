-- "window": a conservative ring. The trailing window is cut into `buckets` sub-buckets of `width` microseconds, and
-- one more is counted, so whatever lies in any trailing window is counted, and at most one sub-bucket besides.
--
-- Packed: 'w', width, index of the newest counter, their sum, then the counters, the newest first. A counter that is
-- missing at the end is zero, so one that is rarely used is short.

local RING = '>c1I6I6I6'
local COUNTERS = 20 -- where they begin
local MOST = 4294967295 -- what a counter holds

local function counter(counters, position)
  return struct.unpack('>I4', counters, position * 4 - 3)
end

-- Return the ring of other sub-buckets: each of the old ones goes where its last moment lies.
local function ring_recut(raw, state, present)
  local _, old_width, old_index = struct.unpack(RING, raw)
  local old, latest = string.sub(raw, COUNTERS), math.max(present, old_index * old_width)
  local sums, oldest = {}, 0
  state.index = math.floor(latest / state.width)
  for position = 1, #old / 4 do
    local last = math.min((old_index - position + 2) * old_width - 1, latest)
    local age = state.index - math.floor(last / state.width)
    if age <= state.buckets then
      sums[age] = math.min((sums[age] or 0) + counter(old, position), MOST)
      oldest = math.max(oldest, age)
    end
  end
  local packed = {}
  for age = 0, oldest do
    state.count = state.count + (sums[age] or 0)
    packed[age + 1] = struct.pack('>I4', sums[age] or 0)
  end
  state.counters = table.concat(packed)
  return state
end

-- Return the ring as it stands at present. Its time never goes back: the clock of a server may.
local function ring_read(raw, present, width, buckets)
  local index = math.floor(present / width)
  local state = {index = index, count = 0, counters = '', width = width, buckets = buckets, opened = true}
  if not raw or string.byte(raw) ~= 119 then return state end
  local _, stored_width, stored_index, count = struct.unpack(RING, raw)
  if stored_width ~= width then return ring_recut(raw, state, present) end
  local age = index - stored_index
  if age > buckets then return state end
  local counters = string.sub(raw, COUNTERS)
  if age <= 0 then
    state.index, state.opened = stored_index, false
  else
    local kept = buckets + 1 - age
    for position = kept + 1, #counters / 4 do count = count - counter(counters, position) end
    counters = string.rep('\0', age * 4) .. string.sub(counters, 1, kept * 4)
  end
  state.count, state.counters = count, counters
  return state
end

-- Return when so many units will have left.
local function ring_free_at(state, units)
  for position = #state.counters / 4, 1, -1 do
    units = units - counter(state.counters, position)
    if units <= 0 then return (state.index - position + state.buckets + 2) * state.width end
  end
end

-- Return when all units will have left.
local function ring_empty_at(state, present)
  for position = 1, #state.counters / 4 do
    if counter(state.counters, position) > 0 then
      return (state.index - position + state.buckets + 2) * state.width
    end
  end
  return present
end

local function ring_add(state, cost)
  local newest = #state.counters > 0 and counter(state.counters, 1) or 0
  cost = math.min(cost, MOST - newest)
  state.count = state.count + cost
  state.counters = struct.pack('>I4', newest + cost) .. string.sub(state.counters, 5)
end

local function ring_pack(state)
  return struct.pack(RING, 'w', state.width, state.index, state.count) .. state.counters
end

-- Return a packed ring without units that were taken at an index; what has left it already is not given back.
local function ring_give(raw, width, index, units)
  local _, stored_width, newest, count = struct.unpack(RING, raw)
  local position, counters = newest - index + 1, string.sub(raw, COUNTERS)
  if stored_width ~= width or position < 1 or position > #counters / 4 then return raw end
  local held = counter(counters, position)
  units = math.min(units, held)
  local changed = string.sub(counters, 1, position * 4 - 4) .. struct.pack('>I4', held - units)
  return struct.pack(RING, 'w', width, newest, count - units) .. changed .. string.sub(counters, position * 4 + 1)
end
