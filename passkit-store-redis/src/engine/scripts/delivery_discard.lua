-- KEYS: delivery records of a subject. ARGV: a time.
-- Removes the records with an earlier time. Returns the oldest time that is left, or "" if no record is left.
local fields = redis.call('HGETALL', KEYS[1])
local oldest
for i = 1, #fields, 2 do
    local at = string.match(fields[i + 1], '^%d+:%d+:(%d+):')
    if at and tonumber(at) < tonumber(ARGV[1]) then
        redis.call('HDEL', KEYS[1], fields[i])
    elseif at and (not oldest or tonumber(at) < tonumber(oldest)) then
        oldest = at
    end
end
if not oldest then redis.call('UNLINK', KEYS[1]) end
return oldest or ''
