-- KEYS: delivery records of a subject. ARGV: name of the call; for each record: event, version, count, time, detail.
-- Merges each record into the stored one: the record with the greater version stays. If the versions are equal, the counts are
-- added, and the later time stays with its detail. Returns 1 if the subject may have had no records before, else 0. If the
-- script runs twice, the second run finds the name of its call and changes nothing, unless another call came in between.
-- Lua compares texts by the rules of the server's language, so this compares bytes.
local function is_greater(one, two)
    for i = 1, math.min(#one, #two) do
        local a, b = string.byte(one, i), string.byte(two, i)
        if a ~= b then return a > b end
    end
    return #one > #two
end
local key, is_new = KEYS[1], 0
if redis.call('HGET', key, '\tu') == ARGV[1] then return 1 end
if redis.call('HLEN', key) == 0 then is_new = 1 end
for i = 2, #ARGV, 5 do
    local event, version, count, at, detail = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    local known = redis.call('HGET', key, event)
    local is_old = false
    if known then
        local v, c, t, d = string.match(known, '^(%d+):(%d+):(%d+):(.*)$')
        is_old = tonumber(version) < tonumber(v)
        if version == v then
            count = string.format('%.0f', math.min(tonumber(c) + tonumber(count), 9007199254740991))
            if tonumber(t) > tonumber(at) or (t == at and is_greater(d, detail)) then at, detail = t, d end
        end
    end
    if not is_old then redis.call('HSET', key, event, version .. ':' .. count .. ':' .. at .. ':' .. detail) end
end
redis.call('HSET', key, '\tu', ARGV[1])
return is_new
