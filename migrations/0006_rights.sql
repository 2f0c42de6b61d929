-- The two of a direct conversation have the same rights: nobody owns it.
update participants p set role = 'member'
from conversations c
where c.conversation_id = p.conversation_id and c.kind = 'direct' and p.role <> 'member';
