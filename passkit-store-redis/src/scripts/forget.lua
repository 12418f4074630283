-- KEYS[1] device. ARGV: time, seconds, name of the call. Returns fields and hints of the registrations it removed, or nothing
-- if the device is unknown or registered later. Run twice, it says again that it removed the device, but not what.
local head = redis.call('HMGET', KEYS[1], 't', 'c', 'x', 'u')
if not head[1] or tonumber(head[2]) > tonumber(ARGV[1]) then
    if not head[1] and head[3] then redis.call('HSET', KEYS[1], 'x', head[3]) end
    return head[4] == ARGV[3] .. ':' and {}
end
local removed, condemned = {}, tonumber(head[3] or 0)
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local version, _, old = string.match(all[i + 1], '^(%d+)([:+]?)(%d*)$')
    if version and string.find(all[i], '/', 1, true) then
        local hint = tonumber(old) or tonumber(version)
        condemned = math.max(condemned, hint)
        removed[#removed + 1] = all[i]
        removed[#removed + 1] = string.format('%.0f', hint)
    end
end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'c', head[2], 'x', string.format('%.0f', condemned), 'u', ARGV[3] .. ':')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return removed
