-- KEYS[1] device. ARGV: field, seconds, name of the call. Returns the hint of the registration it removed, or nothing. The
-- call that removed last is remembered in "u", with the hint, so that a script that runs twice says the same twice.
local held = redis.call('HGET', KEYS[1], ARGV[1])
if not held then
    -- An earlier run may have removed it, and not have been confirmed by the replicas. A write, so that they are asked
    -- again.
    local condemned = redis.call('HGET', KEYS[1], 'x')
    if condemned then redis.call('HSET', KEYS[1], 'x', condemned) end
    local call, hint = string.match(redis.call('HGET', KEYS[1], 'u') or '', '^(.*):(%d*)$')
    return call == ARGV[3] and hint or false
end
local version, _, old = string.match(held, '^(%d+)([:+]?)(%d*)$')
local hint = tonumber(old) or tonumber(version)
local condemned = math.max(tonumber(redis.call('HGET', KEYS[1], 'x') or 0), hint)
hint = string.format('%.0f', hint)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', condemned), 'u', ARGV[3] .. ':' .. hint)
-- Push token, clock, condemned hint and the call alone: the device goes. What must outlast a register under way stays a
-- while.
if redis.call('HLEN', KEYS[1]) == 4 then
    redis.call('HDEL', KEYS[1], 't')
    redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return hint
