"""The directory's scripts: each is carried out by Redis as a whole. All keys of a room share a hash slot.

A room's claim is a hash with `gateway` and `epoch`, its snapshot one with `epoch`, `version` and
`blob`. Both lapse unless the owner renews them: a gateway that dies leaves nothing behind for ever. An old
owner that comes back late cannot take away what is a newer owner's: neither its claim nor its snapshot. The
claim says less than the snapshot: until the first renewal its epoch is 0.
"""

from typing import Final

# KEYS[1]: claim. ARGV: gateway, epoch (0: only if nobody has the room), lease in ms. Gives [gateway, epoch].
CLAIM: Final = """
local gateway, epoch = unpack(redis.call('HMGET', KEYS[1], 'gateway', 'epoch'))
local wanted = tonumber(ARGV[2])
if gateway and wanted <= tonumber(epoch) and gateway ~= ARGV[1] then
  return {gateway, epoch}
end
if epoch and wanted < tonumber(epoch) then
  wanted = tonumber(epoch)
end
redis.call('HSET', KEYS[1], 'gateway', ARGV[1], 'epoch', string.format('%.0f', wanted))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {ARGV[1], string.format('%.0f', wanted)}
"""

# KEYS[1]: claim, KEYS[2]: snapshot. ARGV: gateway, epoch, lease in ms. 1: renewed (made anew after a flush).
RENEW: Final = """
local gateway, epoch = unpack(redis.call('HMGET', KEYS[1], 'gateway', 'epoch'))
if epoch and tonumber(epoch) > tonumber(ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[1], 'gateway', ARGV[1], 'epoch', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if tonumber(redis.call('HGET', KEYS[2], 'epoch') or -1) == tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return 1
"""

# KEYS[1]: claim, KEYS[2]: snapshot. ARGV: epoch, version, blob, lease in ms. 1: stored. Newer ones stay.
STORE: Final = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then
  return 0
end
local kept = redis.call('HMGET', KEYS[2], 'epoch', 'version')
local kept_epoch, version = tonumber(kept[1] or -1), tonumber(kept[2] or -1)
if kept_epoch > tonumber(ARGV[1]) or (kept_epoch == tonumber(ARGV[1]) and version >= tonumber(ARGV[2])) then
  return 0
end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'version', ARGV[2], 'blob', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""

# KEYS[1]: claim, KEYS[2]: snapshot. ARGV: gateway, epoch. 1: nobody has had the room since; it is gone.
RELEASE: Final = """
local gateway, epoch = unpack(redis.call('HMGET', KEYS[1], 'gateway', 'epoch'))
local claimed, ours = tonumber(epoch or -1), tonumber(ARGV[2])
if claimed > ours or (claimed == ours and gateway ~= ARGV[1]) then
  return 0
end
if gateway == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
if tonumber(redis.call('HGET', KEYS[2], 'epoch') or -1) <= ours then
  redis.call('DEL', KEYS[2])
end
return 1
"""
