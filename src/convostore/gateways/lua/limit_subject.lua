-- A subject: one policy for one identity. All that is counted for an identity lies in one hash, a field each policy.

-- Read the subject of an argument: the number of its key, its rule, its field. It may have been read before.
local function subject(packed, present, seen)
  local number, kind, limit, a, b = struct.unpack('>Bc1ddd', packed)
  local key, field = KEYS[number], string.sub(packed, 27)
  local stored = seen or redis.call('HMGET', key, field, '@')
  local raw = stored[1]
  if stored[2] and tonumber(stored[2]) <= present then
    heal(key, present)
    raw = redis.call('HGET', key, field)
  end
  local state
  if kind == 'w' then
    state = ring_read(raw, present, a, b)
  elseif kind == 's' then
    state = smooth_read(raw, present, limit, a, b)
  else
    state = calendar_read(raw, present, kind)
  end
  state.key, state.field, state.kind, state.limit = key, field, kind, limit
  return state
end

-- Return 0 if a cost is admitted at present, else the moment from which on it would be.
local function admitted_at(state, cost)
  if state.kind == 's' then
    local missing = state.units + cost - state.burst
    return missing > state.slack and smooth_free_at(state, missing) or 0
  end
  local missing = state.count + cost - state.limit
  if missing <= 0 then return 0 end
  return state.kind == 'w' and ring_free_at(state, missing) or state.ends
end

-- Take units, and store the subject.
local function take(state, cost, present)
  local kind = state.kind
  if kind == 'w' then
    ring_add(state, cost)
    redis.call('HSET', state.key, state.field, ring_pack(state))
    if state.opened then keep(state.key, (state.index + state.buckets + 1) * state.width, present) end
  elseif kind == 's' then
    smooth_add(state, cost)
    redis.call('HSET', state.key, state.field, smooth_pack(state))
    keep(state.key, smooth_free_at(state, state.units), present)
  else
    state.count = state.count + cost
    redis.call('HSET', state.key, state.field, calendar_pack(state))
    if state.opened then keep(state.key, begin_of(kind, state.period + 2), present) end
  end
end

-- Return what is told of a subject: units taken, units left, when the cost is admitted, when all is free.
local function report(state, moment, present)
  local room, free
  if state.kind == 's' then
    room, free = smooth_room(state), smooth_free_at(state, state.units)
  else
    room = math.max(0, state.limit - state.count)
    free = state.kind == 'w' and ring_empty_at(state, present) or state.ends
  end
  return struct.pack('>dddd', state.count, room, moment, free)
end
