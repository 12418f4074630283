-- KEYS[1] device. ARGV: field, type, how many seconds to keep the tombstone, name of the call.
-- Removes a registration. Returns two numbers: the number of the device's entry in the index of the pass, and the number of
-- its entry in the index of the type. The second is "" if the device has other registrations of the type. Returns nothing if
-- there was no registration.
-- The field "u" contains the name of the call that removed something last, and the two numbers. A second run of the script
-- uses this field to give the same answer.
local previous = redis.call('HGET', KEYS[1], ARGV[1])
if not previous then
    -- An earlier run may have removed the registration without confirmation. A write makes the replicas confirm that.
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
-- With four fields, the device has only its push token, clock, tombstone and last call, so it has no registration. The
-- tombstone stays for a while, because a register that is under way must find it.
if redis.call('HLEN', KEYS[1]) == 4 then
    redis.call('HDEL', KEYS[1], 't')
    redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return { number, of_type }
