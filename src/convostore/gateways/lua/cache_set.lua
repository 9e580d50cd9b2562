-- Put a value over whatever is there, and take away any lease. The floor stays.
-- KEYS: the cell. ARGV: kind, stamp, milliseconds to live, what follows the header. Answers whether it was put in.
local life = tonumber(ARGV[3])
local cell = read_cell(KEYS[1])
local value = {
  kind = ARGV[1], version = cell and cell.version or 0, stamp = ARGV[2], expires = now_microseconds() + life * 1000,
}
return put_cell(KEYS[1], value, ARGV[4], life) and 1 or 0
