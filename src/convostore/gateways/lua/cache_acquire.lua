-- Answer the value, or give the lease to load it, or say that somebody else holds the lease.
-- KEYS: the cell. ARGV: token, microseconds of a lease, milliseconds that a tombstone and a leased value are kept,
-- and the stamp of a value that the caller has seen and cannot use, or ''.
-- Answers {0} no lease to be had, {1, now, cell}, {2, now, floor} or {3, now, microseconds left}.
local token, lease = ARGV[1], tonumber(ARGV[2])
local now = now_microseconds()
local cell = read_cell(KEYS[1])
if cell and cell.kind ~= 'T' and cell.stamp ~= ARGV[5] and cell.expires > now then
  return {1, now, redis.call('GET', KEYS[1])}
end
-- A lease that ends later than one given now could is of a time before the clock was set back.
if cell and cell.token ~= NONE and cell.lease_end > now and cell.lease_end <= now + lease then
  return {3, now, cell.lease_end - now}
end
local given
if not cell then
  given = put_cell(KEYS[1], {kind = 'T', version = 0, token = token, lease_end = now + lease}, '', tonumber(ARGV[3]))
else
  given = put_lease(KEYS[1], token, now + lease)
  if given then
    live_at_least(KEYS[1], tonumber(cell.kind == 'T' and ARGV[3] or ARGV[4]))
  end
end
if not given then
  return {0}
end
return {2, now, cell and cell.version or 0}
