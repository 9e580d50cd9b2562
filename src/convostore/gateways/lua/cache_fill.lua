-- Put in what was loaded under a lease: only while the lease is in the cell, and not below the floor.
-- KEYS: the cell. ARGV: token, kind, version, milliseconds to live, microseconds that loading took, what follows the
-- header. A lease that cannot be used is given back.
local token, version, life = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local cell = read_cell(KEYS[1])
if not cell or cell.token ~= token then
  return 0
end
if version < cell.version then
  put_lease(KEYS[1], NONE, 0)
  return 0
end
local filled = {
  kind = ARGV[2], version = version, stamp = token, cost = tonumber(ARGV[5]), expires = now_microseconds() + life * 1000,
}
return put_cell(KEYS[1], filled, ARGV[6], life) and 1 or 0
