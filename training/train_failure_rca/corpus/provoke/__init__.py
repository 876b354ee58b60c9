"""Small programs that really fail (or really do not), and what they print.

Composed logs say what their author remembers; a program's own output also holds what nobody would
write down: the frames above an error, the warnings around it, what the other ranks print when one
has died. Each scenario in ``scenarios/`` is one program with the labels its output proves and a
pattern for every proof, so that a program that no longer fails in its way is noticed.
"""
