-- Put a written value over an older value; raise the floor where there is none to go by.
-- KEYS: the cell. ARGV: version, stamp, milliseconds to live, milliseconds that a tombstone is kept, what follows the
-- header. Answers whether the value was put in.
local version, life = tonumber(ARGV[1]), tonumber(ARGV[3])
local cell = read_cell(KEYS[1])
if cell and cell.version >= version then
  return 0
end
if cell and cell.kind == 'V' then
  local written = {
    kind = 'V', version = version, stamp = ARGV[2], cost = cell.cost, expires = now_microseconds() + life * 1000,
  }
  return put_cell(KEYS[1], written, ARGV[5], life) and 1 or 0
end
local tombstone = {kind = 'T', version = version, token = cell and cell.token, lease_end = cell and cell.lease_end}
put_cell(KEYS[1], tombstone, '', tonumber(ARGV[4]))
return 0
