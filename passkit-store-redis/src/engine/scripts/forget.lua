-- KEYS[1] device. ARGV: time, how many seconds to keep the tombstone, name of the call.
-- Removes the device if it last registered at or before the time, and keeps its tombstone. Returns the fields of the removed
-- registrations and types, each with the number of its index entry. Returns nothing if the device is unknown, or if it
-- registered after the time. A second run of the same call returns an empty list.
local head = redis.call('HMGET', KEYS[1], 't', 'c', 'x', 'u')
if not head[1] or tonumber(head[2]) > tonumber(ARGV[1]) then
    if not head[1] and head[3] then redis.call('HSET', KEYS[1], 'x', head[3]) end
    return head[4] == ARGV[3] .. ':' and {}
end
local removed, tombstone = {}, tonumber(head[3] or 0)
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local field, number = all[i], nil
    if string.find(field, '/', 1, true) then
        local version, _, old = string.match(all[i + 1], '^(%d+)([:+]?)(%d*)$')
        number = tonumber(old) or tonumber(version)
    elseif #field > 1 then
        number = tonumber(string.match(all[i + 1], '^%d+'))
    end
    if number then
        tombstone = math.max(tombstone, number)
        removed[#removed + 1] = field
        removed[#removed + 1] = string.format('%.0f', number)
    end
end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'c', head[2], 'x', string.format('%.0f', tombstone), 'u', ARGV[3] .. ':')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return removed
