-- "smooth": the generic cell rate algorithm (ITU-T I.371) as a bucket that leaks `limit` units in each `window`
-- microseconds, and holds `burst` units. Counted in units, so that they stay when the limit changes.
--
-- Packed: 's', the moment of the last change, the units at that moment.

local SMOOTH = '>c1dd'

local function smooth_read(raw, present, limit, window, burst)
  local state = {at = present, units = 0, limit = limit, window = window, burst = burst}
  if raw and string.byte(raw) == 115 then
    local _, at, units = struct.unpack(SMOOTH, raw)
    state.at = math.max(at, present)
    state.units = math.max(0, units - (state.at - at) * limit / window)
  end
  -- What rounding may add; far below a unit.
  state.slack = 1e-9 * (1 + burst / 1e6)
  state.count = math.ceil(state.units - state.slack)
  return state
end

local function smooth_room(state)
  return math.max(0, math.floor(state.burst - state.units + state.slack))
end

-- Return when so many units will have leaked; what rounding may have added does not make it later.
local function smooth_free_at(state, units)
  return state.at + math.ceil(math.max(0, units - state.slack) * state.window / state.limit)
end

local function smooth_add(state, cost)
  state.units = math.min(state.units + cost, MOST)
  state.count = math.ceil(state.units - state.slack)
end

local function smooth_pack(state)
  return struct.pack(SMOOTH, 's', state.at, state.units)
end

local function smooth_give(raw, units)
  local _, at, held = struct.unpack(SMOOTH, raw)
  return struct.pack(SMOOTH, 's', at, math.max(0, held - units))
end
