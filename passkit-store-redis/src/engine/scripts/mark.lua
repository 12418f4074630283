-- KEYS: bucket, published passes. With pushes also: pending changes, the index of these changes by age. ARGV: now, the time
-- of the store's creation, the number of tokens to keep. For passes without content, this number is 0, and their serial
-- numbers follow. Otherwise three values follow for each pass: its serial number; the digest of its content, or "" if the
-- pass is removed; its tokens in one text. The script marks such a pass if it is not removed and its digest differs from the
-- digest published last. Returns how many passes it marked.
local now, kept = tonumber(ARGV[1]), tonumber(ARGV[3])
local head = redis.call('HMGET', KEYS[1], '\tc', '\td', '\tl')
local version = string.format('%.0f', math.max(tonumber(head[1] or 0) + 1, now))
local floor, latest = math.max(tonumber(head[2] or 0), tonumber(ARGV[2])), tonumber(head[3] or 0)

-- Keeps each token once, the newest at the end.
local function unite(tokens)
    local seen, united = {}, {}
    for at = #tokens - 31, 1, -32 do
        local token = string.sub(tokens, at, at + 31)
        if not seen[token] and #united < kept then
            seen[token] = true
            table.insert(united, 1, token)
        end
    end
    return table.concat(united)
end

local published
local function is_new(serial, digest, tokens)
    local known = redis.call('HGET', KEYS[2], serial) or ''
    published = (digest == '' and '-' or '+') .. unite(string.sub(known, 2) .. tokens)
    if published ~= known then redis.call('HSET', KEYS[2], serial, published) end
    if digest == '' or redis.call('HGET', KEYS[1], '\t#' .. serial) == digest then return false end
    redis.call('HSET', KEYS[1], '\t#' .. serial, digest)
    return true
end

local marked, step = 0, kept > 0 and 3 or 1
for i = 4, #ARGV, step do
    local serial = ARGV[i]
    if kept == 0 or is_new(serial, ARGV[i + 1], ARGV[i + 2]) then
        local previous = redis.call('HGET', KEYS[1], serial)
        local last = previous and tonumber(string.match(previous, '^%d+:(%d+)$')) or 0
        local date = math.max(math.floor(now / 1000000), math.max(last, floor) + 1)
        latest, marked = math.max(latest, date), marked + 1
        redis.call('HSET', KEYS[1], serial, version .. string.format(':%.0f', date))
        if KEYS[3] then
            local progress = string.match(redis.call('HGET', KEYS[3], serial) or '', '^%d+(.*)$') or ''
            redis.call('HSET', KEYS[3], serial, version .. progress)
            redis.call('ZADD', KEYS[4], 'NX', ARGV[1], serial)
        end
    end
end
if marked > 0 then
    redis.call('HSET', KEYS[1], '\tc', version, '\tl', string.format('%.0f', latest))
elseif published then
    -- An earlier run may have stored this content without confirmation. A write makes the replicas confirm that.
    redis.call('HSET', KEYS[2], ARGV[#ARGV - 2], published)
end
return marked
