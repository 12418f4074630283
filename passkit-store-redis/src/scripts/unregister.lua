-- KEYS[1] device. ARGV: field, seconds. Returns the hint of the registration it removed, or nothing.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then
    -- An earlier run may have removed it, and not have been confirmed by the replicas. A write, so that they are asked
    -- again.
    local condemned = redis.call('HGET', KEYS[1], 'x')
    if condemned then redis.call('HSET', KEYS[1], 'x', condemned) end
    return false
end
local version, _, old = string.match(held, '^(%d+)([:+]?)(%d*)$')
local hint = tonumber(old) or tonumber(version)
local condemned = math.max(tonumber(redis.call('HGET', KEYS[1], 'x') or 0), hint)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', condemned))
-- Push token, clock and condemned hint alone: the device goes. What must outlast a register under way stays a while.
if redis.call('HLEN', KEYS[1]) == 3 then
    redis.call('HDEL', KEYS[1], 't')
    redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return string.format('%.0f', hint)
