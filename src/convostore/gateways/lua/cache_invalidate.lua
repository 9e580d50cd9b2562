-- Raise the floor: nothing older than a version is to be found here from now on.
-- KEYS: the cell. ARGV: version, milliseconds that a tombstone is kept. Answers whether an older value was there.
local version = tonumber(ARGV[1])
local cell = read_cell(KEYS[1])
if cell and cell.version >= version then
  return 0
end
local tombstone = {kind = 'T', version = version, token = cell and cell.token, lease_end = cell and cell.lease_end}
put_cell(KEYS[1], tombstone, '', tonumber(ARGV[2]))
return cell and cell.kind ~= 'T' and 1 or 0
