-- The cell of a cached value: one string that begins with this header. What follows it is its writer's.
--   kind     V a value, N the knowledge that there is nothing, T a tombstone
--   version  of the value; of a tombstone the floor: no older value may be put here
--   stamp    tells this value from every other that was ever put here
--   token    of the lease on the cell, NONE if there is none, and the moment when others may take it
--   expires  the moment when the value ends; the string itself may outlive it
--   cost     microseconds that loading the value took
-- Moments are microseconds of this server's clock. Whatever has no such header counts as no cell at all.
local MAGIC = '\197\1'
local FORMAT = '>c2c1I8c8c8I8I8I4'
local SIZE = 47
local LEASE_AT = 19
local MAX_VERSION = 2^53 - 1
local NONE = string.rep('\0', 8)

local function now_microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function read_cell(key)
  local text = redis.pcall('GETRANGE', key, 0, SIZE - 1)
  if type(text) ~= 'string' or #text < SIZE or string.sub(text, 1, 2) ~= MAGIC then
    return nil
  end
  local cell = {}
  local _
  _, cell.kind, cell.version, cell.stamp, cell.token, cell.lease_end, cell.expires, cell.cost =
    struct.unpack(FORMAT, text)
  if not string.find('VNT', cell.kind, 1, true) or cell.version > MAX_VERSION then
    return nil
  end
  return cell
end

-- A full server refuses to store; to forget what was there is safe, for that is what an eviction does.
local function put_cell(key, cell, rest, milliseconds)
  local text = struct.pack(FORMAT, MAGIC, cell.kind, cell.version, cell.stamp or NONE, cell.token or NONE,
    cell.lease_end or 0, cell.expires or 0, cell.cost or 0) .. rest
  local stored = redis.pcall('SET', key, text, 'PX', string.format('%d', milliseconds))
  if stored.ok then
    return true
  end
  redis.call('DEL', key)
  return false
end

local function put_lease(key, token, lease_end)
  local stored = redis.pcall('SETRANGE', key, LEASE_AT, token .. struct.pack('>I8', lease_end))
  if type(stored) == 'number' then
    return true
  end
  redis.call('DEL', key)
  return false
end

local function live_at_least(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then
    redis.call('PEXPIRE', key, string.format('%d', milliseconds))
  end
end
