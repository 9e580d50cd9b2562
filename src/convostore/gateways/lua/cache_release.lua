-- Give a lease back, so that the next reader need not wait for its end.
-- KEYS: the cell. ARGV: token.
local cell = read_cell(KEYS[1])
if not cell or cell.token ~= ARGV[1] then
  return 0
end
if cell.kind == 'T' and cell.version == 0 then
  return redis.call('DEL', KEYS[1])
end
return put_lease(KEYS[1], NONE, 0) and 1 or 0
