"""The directory's scripts: each is carried out by Redis as a whole. All keys of a room share a hash slot.

A room's claim is a hash with `gateway` and `epoch`, its snapshot one with `version` and `blob`. Both lapse
unless the owner renews them: a gateway that dies leaves nothing behind for ever. A claim goes only with its
own epoch: an old owner that comes back late cannot take a newer owner's away.
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
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
"""

# KEYS[1]: claim, KEYS[2]: snapshot. ARGV: epoch, version, blob, lease in ms. 1: stored. Newer ones stay.
STORE: Final = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) > tonumber(ARGV[1]) then
  return 0
end
local version = redis.call('HGET', KEYS[2], 'version')
if version and tonumber(version) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('HSET', KEYS[2], 'version', ARGV[2], 'blob', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""

# KEYS[1]: claim, KEYS[2]: snapshot. ARGV: gateway, epoch. 1: it was ours and is gone.
RELEASE: Final = """
local gateway, epoch = unpack(redis.call('HMGET', KEYS[1], 'gateway', 'epoch'))
if gateway ~= ARGV[1] or epoch ~= ARGV[2] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""
