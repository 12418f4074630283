-- KEYS[1] device. ARGV: field, type, seconds, name of the call. Returns the number of the index entry of the registration it
-- removed, and that of the type if it was the device's last one of the type, or else ""; nothing if there was no registration.
-- The call that removed something last is remembered in "u", with the numbers, so that a script that runs twice gives the
-- same answer twice.
local previous = redis.call('HGET', KEYS[1], ARGV[1])
if not previous then
    -- An earlier run may have removed it without being confirmed by the replicas. A write makes them confirm.
    local tombstone = redis.call('HGET', KEYS[1], 'x')
    if tombstone then redis.call('HSET', KEYS[1], 'x', tombstone) end
    local call, number, of_type = string.match(redis.call('HGET', KEYS[1], 'u') or '', '^(.*):(%d+):(%d*)$')
    return call == ARGV[4] and { number, of_type } or false
end
local version, _, old = string.match(previous, '^(%d+)([:+]?)(%d*)$')
local number, of_type = tonumber(old) or tonumber(version), ''
local tombstone = math.max(tonumber(redis.call('HGET', KEYS[1], 'x') or 0), number)
local type_number, count = string.match(redis.call('HGET', KEYS[1], ARGV[2]) or '', '^(%d+):?(%d*)$')
count = (tonumber(count) or 1) - 1
if count > 0 then
    redis.call('HSET', KEYS[1], ARGV[2], count > 1 and type_number .. ':' .. count or type_number)
elseif type_number then
    redis.call('HDEL', KEYS[1], ARGV[2])
    of_type, tombstone = type_number, math.max(tombstone, tonumber(type_number))
end
number = string.format('%.0f', number)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', tombstone), 'u', ARGV[4] .. ':' .. number .. ':' .. of_type)
-- Push token, clock, tombstone and the call alone: the device has nothing left. What a register under way has to find stays a
-- while.
if redis.call('HLEN', KEYS[1]) == 4 then
    redis.call('HDEL', KEYS[1], 't')
    redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return { number, of_type }
