-- KEYS[1] device. ARGV: now, push token, the number of types; for each type its name and the number of its index entry; for
-- each pass its field and the number of its index entry.
-- Registers the device for the passes. Returns for each pass 1 if the registration is new and 0 if it existed. A result above
-- 1 means that the script refused the registration, because its index entries may have been removed. This result is the number
-- of the device's tombstone. The caller must then add the entries again, with numbers above the tombstone, and run the script
-- again.
--
-- The value of a registration contains its version v (the value of the device's clock) and the number n of its index entry.
-- The value is "v" if both are equal, else "v:n". After the pass was registered again, the value is "v+" or "v+n". If the
-- script runs twice, the second run finds the entry number of the first run and gives the same answer.
-- The value of a type is the number of its index entry. If the type has several registrations, ":" and their count follow.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], 't', 'c', 'x')
local clock, tombstone = tonumber(head[2] or 0), tonumber(head[3] or 0)
local types, first = {}, 4 + 2 * ARGV[3]
for i = 4, first - 1, 2 do
    local number, count = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+):?(%d*)$')
    local entry = tonumber(ARGV[i + 1])
    types[ARGV[i]] = {
        count = number and (tonumber(count) or 1) or 0,
        number = math.max(tonumber(number) or 0, entry),
        is_refused = not number and entry <= tombstone,
    }
end
local answers, any = {}, false
for i = first, #ARGV, 2 do
    local field, entry = ARGV[i], tonumber(ARGV[i + 1])
    local of_type = types[string.match(field, '^[^/]+')]
    local previous = redis.call('HGET', KEYS[1], field)
    if not previous and (entry <= tombstone or of_type.is_refused) then
        answers[#answers + 1] = tombstone
    else
        local again = ':'
        if previous then
            local version, was_again, old = string.match(previous, '^(%d+)([:+]?)(%d*)$')
            old = tonumber(old) or tonumber(version)
            if old ~= entry or was_again == '+' then again = '+' end
            entry = math.max(entry, old)
        else
            of_type.count = of_type.count + 1
        end
        any, of_type.is_changed, clock = true, true, math.max(clock + 1, now)
        local value = string.format('%.0f', clock)
        if again == '+' or entry ~= clock then value = value .. again end
        if entry ~= clock then value = value .. string.format('%.0f', entry) end
        redis.call('HSET', KEYS[1], field, value)
        answers[#answers + 1] = again == '+' and 0 or 1
    end
end
for name, of_type in pairs(types) do
    if of_type.is_changed then
        local value = string.format('%.0f', of_type.number)
        if of_type.count > 1 then value = value .. ':' .. of_type.count end
        redis.call('HSET', KEYS[1], name, value)
    end
end
if any then
    redis.call('HSET', KEYS[1], 't', ARGV[2], 'c', string.format('%.0f', clock))
    -- If the device was removed before, its key was about to expire.
    if not head[1] and (head[2] or head[3]) then redis.call('PERSIST', KEYS[1]) end
end
return answers
