-- KEYS[1] device. ARGV: now, push token, then of each pass its field and the hint that was set for it.
-- Returns for each pass 1 created, 0 existing, or, more than that, refused: hints up to this number were condemned in
-- between, set one above it.
--
-- A registration holds its version (the device's clock) and its hint. "v" was created with hint v, "v:h" with hint h;
-- "v+" and "v+h" are the same registered again. A script that runs twice finds its own hint, and says the same twice.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], 't', 'c', 'x')
local clock, condemned = tonumber(head[2] or 0), tonumber(head[3] or 0)
local answers, any = {}, false
for i = 3, #ARGV, 2 do
    local hint = tonumber(ARGV[i + 1])
    local held = redis.call('HGET', KEYS[1], ARGV[i])
    if not held and hint <= condemned then
        answers[#answers + 1] = condemned
    else
        local mark = ':'
        if held then
            local version, again, old = string.match(held, '^(%d+)([:+]?)(%d*)$')
            old = tonumber(old) or tonumber(version)
            if old ~= hint or again == '+' then mark = '+' end
            hint = math.max(hint, old)
        end
        any, clock = true, math.max(clock + 1, now)
        local value = string.format('%.0f', clock)
        if mark == '+' or hint ~= clock then value = value .. mark end
        if hint ~= clock then value = value .. string.format('%.0f', hint) end
        redis.call('HSET', KEYS[1], ARGV[i], value)
        answers[#answers + 1] = mark == '+' and 0 or 1
    end
end
if any then
    redis.call('HSET', KEYS[1], 't', ARGV[2], 'c', string.format('%.0f', clock))
    -- What was left of a device that had gone was to expire.
    if not head[1] and (head[2] or head[3]) then redis.call('PERSIST', KEYS[1]) end
end
return answers
