-- Put slots behind the newest ones that are there; raise the floor where they do not stand behind them.
-- KEYS: the cell. ARGV: the sequences of the first and the last slot, stamp, milliseconds that a tombstone is kept,
-- how many slots and how many bytes of them are kept at most, the slots' entries, their contents.
-- What follows the header is, behind the tags: the last sequence, the number of slots, an entry of four bytes for each
-- (a mark, then the length of the content), and their contents. Answers whether the slots were put in.
local ENTRY = 4
local LENGTHS = 16777216
local first, last = tonumber(ARGV[1]), tonumber(ARGV[2])
local most, most_bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local cell = read_cell(KEYS[1])
if not cell or cell.version >= last then
  return 0
end

local function refused()
  local tombstone = {kind = 'T', version = last, token = cell.token, lease_end = cell.lease_end}
  put_cell(KEYS[1], tombstone, '', tonumber(ARGV[4]))
  return 0
end

local life = redis.call('PTTL', KEYS[1])
if cell.kind ~= 'V' or cell.version ~= first - 1 or cell.expires <= now_microseconds() or life < 1 then
  return refused()
end
local text = redis.call('GET', KEYS[1])
local data = SIZE + 2 + 8 * (string.byte(text, SIZE + 1) or 0)
if #text < data + 11 then
  return refused()
end
local entries_end = data + 12 + ENTRY * struct.unpack('>I4', text, data + 8)
local entries = string.sub(text, data + 12, entries_end - 1) .. ARGV[7]
local contents = string.sub(text, entries_end) .. ARGV[8]
local count, dropped, bytes = #entries / ENTRY, 0, #contents
while dropped < count and (count - dropped > most or bytes > most_bytes) do
  bytes = bytes - struct.unpack('>I4', entries, ENTRY * dropped + 1) % LENGTHS
  dropped = dropped + 1
end
if dropped == count then
  return refused()
end
local rest = string.sub(text, SIZE + 1, data - 1) .. struct.pack('>I8I4', last, count - dropped)
  .. string.sub(entries, ENTRY * dropped + 1) .. string.sub(contents, #contents - bytes + 1)
local extended = {
  kind = 'V', version = last, stamp = ARGV[3], token = cell.token, lease_end = cell.lease_end,
  expires = cell.expires, cost = cell.cost,
}
return put_cell(KEYS[1], extended, rest, life) and 1 or 0
