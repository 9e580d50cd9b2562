-- Keep a lease that is still there. Never makes one: what was evicted meanwhile may have been written meanwhile.
-- KEYS: the cell. ARGV: token, microseconds of a lease, milliseconds that the cell is kept at least.
local cell = read_cell(KEYS[1])
if not cell or cell.token ~= ARGV[1] then
  return 0
end
if put_lease(KEYS[1], ARGV[1], now_microseconds() + tonumber(ARGV[2])) then
  live_at_least(KEYS[1], tonumber(ARGV[3]))
  return 1
end
return 0
