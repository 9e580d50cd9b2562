-- "day" and "month": a quota for each day or month of the UTC calendar. The count of the period before is kept until
-- this one ends, so that what was used last can still be written down for billing.
--
-- Packed: 'd' or 'm', the number of the period, its count, the count of the one before.

local CALENDAR = '>c1I6I6I6'
local DAY = 86400000000

-- Days since 1970 of the first of a month, and back: Howard Hinnant, "chrono-compatible low-level date algorithms".
local function first_of(month)
  local year, number = math.floor(month / 12), month % 12 + 1
  if number <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local day = math.floor((153 * (number + (number > 2 and -3 or 9)) + 2) / 5)
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + day - 719468
end

local function month_of(day)
  day = day + 719468
  local era = math.floor(day / 146097)
  local of_era = day - era * 146097
  local year = math.floor(
    (of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local shifted = math.floor((5 * of_year + 2) / 153)
  local number = shifted < 10 and shifted + 3 or shifted - 9
  return (year + era * 400 + (number <= 2 and 1 or 0)) * 12 + number - 1
end

local function period_of(kind, moment)
  local day = math.floor(moment / DAY)
  return kind == 'd' and day or month_of(day)
end

local function begin_of(kind, period)
  return (kind == 'd' and period or first_of(period)) * DAY
end

local function calendar_read(raw, present, kind)
  local period = period_of(kind, present)
  local state = {kind = kind, period = period, count = 0, before = 0, opened = true}
  if raw and string.sub(raw, 1, 1) == kind then
    local _, stored, count, before = struct.unpack(CALENDAR, raw)
    if stored >= period then
      state.period, state.count, state.before, state.opened = stored, count, before, false
    elseif stored == period - 1 then
      state.before = count
    end
  end
  state.ends = begin_of(kind, state.period + 1)
  return state
end

local function calendar_pack(state)
  return struct.pack(CALENDAR, state.kind, state.period, state.count, state.before)
end

local function calendar_give(raw, period, units)
  local kind, stored, count, before = struct.unpack(CALENDAR, raw)
  if stored == period then count = math.max(0, count - units) end
  if stored == period + 1 then before = math.max(0, before - units) end
  return struct.pack(CALENDAR, kind, stored, count, before)
end
