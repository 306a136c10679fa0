"""What was meant by a mistake: the right line, for messages. The only thing here is to advise.

Each error is found elsewhere, and would be raised without this package too. It is imported where an
error is being made, and only there: a program without mistakes never loads it, and who reads the
kernel can leave it out. It reads the program's source, and what the names in it stand for. One part
looks for what is no error: debug mode loads it where a run begins, and a trace when a task waits.

    mistakes        an error that leaves a task: is it a mistake that is known?
    arguments       a call of ours that was refused for its arguments
    uses            a thing that was used as what it is not
    places          where an error was raised: the lines of the program, and the calls in them
    keywords        keywords of other libraries, and which of ours they mean
    dropped         calls that Python drops without a word: looked for in the source
    foreign         names of other libraries, and what takes their place
"""
