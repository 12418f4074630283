-- KEYS: bucket, debts, debts by age. ARGV: now, the store's creation, then of each pass its serial number and the digest of
-- its content. Marks and owes, as mark.lua does, those whose content is not the one published last. Returns how many.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], '\tc', '\td', '\tl')
local clock = math.max(tonumber(head[1] or 0) + 1, now)
local version = string.format('%.0f', clock)
local floor, latest = math.max(tonumber(head[2] or 0), tonumber(ARGV[2])), tonumber(head[3] or 0)
local marked = 0
for i = 3, #ARGV, 2 do
    local content = '\t#' .. ARGV[i]
    if redis.call('HGET', KEYS[1], content) ~= ARGV[i + 1] then
        local held = redis.call('HGET', KEYS[1], ARGV[i])
        local last = held and tonumber(string.match(held, '^%d+:(%d+)$')) or 0
        local date = math.max(math.floor(now / 1000000), math.max(last, floor) + 1)
        latest = math.max(latest, date)
        local value = version .. string.format(':%.0f', date)
        redis.call('HSET', KEYS[1], ARGV[i], value, content, ARGV[i + 1])
        local reached = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^%d+(.*)$') or ''
        redis.call('HSET', KEYS[2], ARGV[i], version .. reached)
        redis.call('ZADD', KEYS[3], 'NX', ARGV[1], ARGV[i])
        marked = marked + 1
    end
end
if marked > 0 then
    redis.call('HSET', KEYS[1], '\tc', version, '\tl', string.format('%.0f', latest))
else
    -- Another run may have published this, and not have been confirmed by the replicas. A write, so that they are asked
    -- again.
    redis.call('HSET', KEYS[1], '\t#' .. ARGV[3], ARGV[4])
end
return marked
