-- KEYS[1] bucket. ARGV: now, the store's creation, then of each pass its serial number and the digest of its content. Marks,
-- as mark.lua does, those whose content is not the one published last. Returns how many.
local now = tonumber(ARGV[1])
local head = redis.call('HMGET', KEYS[1], '\tc', '\td', '\tl')
local clock = math.max(tonumber(head[1] or 0) + 1, now)
local floor, latest = math.max(tonumber(head[2] or 0), tonumber(ARGV[2])), tonumber(head[3] or 0)
local marked = 0
for i = 3, #ARGV, 2 do
    local content = '\t#' .. ARGV[i]
    if redis.call('HGET', KEYS[1], content) ~= ARGV[i + 1] then
        local held = redis.call('HGET', KEYS[1], ARGV[i])
        local last = held and tonumber(string.match(held, '^%d+:(%d+)$')) or 0
        local date = math.max(math.floor(now / 1000000), math.max(last, floor) + 1)
        latest = math.max(latest, date)
        local value = string.format('%.0f:%.0f', clock, date)
        redis.call('HSET', KEYS[1], ARGV[i], value, content, ARGV[i + 1])
        marked = marked + 1
    end
end
if marked > 0 then
    redis.call('HSET', KEYS[1], '\tc', string.format('%.0f', clock), '\tl', string.format('%.0f', latest))
else
    -- Another run may have published this, and not have been confirmed by the replicas. A write, so that they are asked
    -- again.
    redis.call('HSET', KEYS[1], '\t#' .. ARGV[3], ARGV[4])
end
return marked
