"""Sentences that are none of the questions: the agent answers them with the fallback."""

from __future__ import annotations

WRITTEN = tuple(
    """
the train leaves from platform nine|I bought a new pair of shoes|my brother plays football every week
please close the window behind you|there is a bird on the roof|we went to the mountains last summer
the soup needs a little more salt|she painted the door last monday|can you drive a truck|how tall is the tower
what do elephants eat|when was the war|who wrote this book|how far is the moon|what is the meaning of life
the river runs to the sea|he forgot his umbrella at home|my computer is very slow today
the children are playing in the garden|I would like to fly to the stars|where did you put my keys
is there milk in the fridge|tomorrow we will visit my uncle|a red car stopped in front of the house
the doctor said I should rest|this chair is not comfortable|how many people live in china
what is the largest ocean|which animal runs fastest|why do cats sleep so much|do you believe in ghosts
can I have a glass of water|the meeting starts in ten minutes|I lost my phone on the bus
please turn down the radio|the teacher asked a hard question|it rained all through the night|my shoes are wet
they built a bridge over the valley|she can play the violin|we need eggs flour and sugar
he works at the hospital|the film was much too long|what did you dream about|who won the game last night
is it far to the station|when is your birthday|how do I cook rice|which bus goes to the airport
the answer is in the book|a wolf ran across the field|this letter is for my mother
the lamp on the desk is broken|I can not hear you|nobody knows where he went|open the box and look inside
the cake smells wonderful|did you see the fire|my neighbour has three dogs|put the plates on the table
what happened to the old theatre|have you ever been to africa|the clock on the wall stopped
we sailed around the island|every student has a number|give me back my pencil|what is a black hole
how does a car work|where do penguins live|who painted this picture|turn left at the corner
I am hungry and tired|the winter was long and cold|write your address here|it takes two hours by train
the market is full of people|my favorite food is pizza|can you sing for me|how many stars are there
what is seven times eight|what is ninety minus four|tell me about dinosaurs|tell me a long story
tell me the news|what is the capital of norway|what is the capital of egypt|what color is an elephant
what color is my shirt|what does a cow say|what is the opposite of happy|how many wheels does a bicycle have
do you sell shoes|how much is the house|the pilot landed the plane safely|a cold wind blows from the north
we planted seven trees this spring|my cousin lives near the lake|the library closes early today
I cannot find my glasses|the horse ran over the hill|please write me a letter|how heavy is an elephant
where does the river end|why is the sea so deep|which road leads to the castle|who built the pyramids
when will the rain stop|what time is it now|can you drive a car|do you play tennis|are there fish in the pond
is the soup still warm|how long is the bridge|what is five minus two|what is two times three
what is the capital of spain|what is the capital of canada|what color is a tomato|how many days are in a month
how much is the milk|what does a horse say|what is the opposite of fast|do you sell flowers|tell me a secret
sing a song|the butter is on the table|our flight was delayed again|he repaired the old radio
they danced until midnight|the baby is sleeping now|my pencil is under the desk|winter comes after autumn
she speaks four languages|turn on the kitchen light|this road is closed|the moon is very bright tonight
he drank a glass of juice|I will call you tomorrow|the farmer has many sheep|do not forget your coat
the window is open|it is too dark in here|look at the big ship|yes|no|maybe|I do not know|okay|well, let me see
that is interesting|really|just a moment please|what did you say
""".strip()
    .replace("\n", "|")
    .split("|")
)


def _each(frames: str, subjects: str) -> tuple[str, ...]:
    """Every subject in every frame, `_` being its place."""
    return tuple(frame.replace("_", subject) for frame in frames.split("|") for subject in subjects.split("|"))


# The frames of the known questions about what is not known: only the subject tells them apart.
NEAR = (
    *_each("what is the capital of _|tell me the capital of _|the capital of _|which city is the capital of _",
           "norway|egypt|spain|canada|china|russia|greece|poland|brazil|india|turkey|austria|ireland|finland|kenya"
           "|peru|denmark|portugal|hungary|mexico|scotland|america"),
    *_each("what color is _|the color of _|what is the color of _|do you know what color _ is",
           "an elephant|a tomato|my shirt|the sea|an orange|a carrot|the sun|milk|gold|a lemon|coffee|the night"
           "|a rose|chocolate|your hair|the moon|a frog|this car|the door|a potato"),
    *_each("what is the opposite of _|tell me the opposite of _|the opposite of _",
           "happy|fast|good|long|old|rich|up|left|black|early|easy|young|wet|strong|day|love|open|full"),
    *_each("what is _|how much is _|_|tell me _",
           "two times three|seven times eight|five minus two|ninety minus four|eight minus three|four times four"
           "|six divided by two|ten minus one|three times five|five minus four|one minus one|four minus three"
           "|seven plus eight|six plus nine|nine plus seven|ten plus six|eight plus eight|seven plus six"
           "|nine plus two|two plus nine|one plus eight|three plus seven|eight plus four|seven plus one"
           "|six plus three|zero plus zero"),
    *_each("how much is _|what is the price of _|what does _ cost|the price of _",
           "the milk|the house|a car|the butter|a ticket|the tea|a bottle of water|an apple|the soup|the dog"
           "|a pound of meat|this book|the lamp|a beer"),
    *_each("do you sell _|do you have _|can I buy _|I would like some _",
           "shoes|flowers|milk|cheese|books|apples|eggs|water|sugar|butter|meat|hats|pencils|toys|wine|fish|paper"
           "|cake"),
    *_each("how many legs does _ have|how many legs has _|tell me how many legs _ has",
           "a dog|a horse|an ant|a chicken|a table|a bee|a cow|a snake|a man|a crab"),
    *_each("how many _|do you know how many _|tell me how many _",
           "days are in a month|hours are in a day|weeks are in a year|minutes are in an hour|days are in a year"
           "|months are in a century|wheels does a bicycle have|wheels does a car have|people live in london"
           "|eyes has a fly|fingers has a hand|seconds are in a minute|letters are in the alphabet|planets are there"
           "|teeth does a shark have"),
    *_each("what does _ say|which sound does _ make|how does _ go",
           "a cow|a horse|a duck|a sheep|a lion|a pig|a bird|a mouse|a frog|the baby|my boss|a bee"),
    *_each("are you open on _|do you open on _|can I come on _",
           "monday|tuesday|wednesday|thursday|friday|christmas|holidays|my birthday"),
    *_each("when does _ open|when does _ close|where is _|tell me where _ is",
           "the museum|the library|the bank|the station|the school|the post office|the theatre|the airport|the park"
           "|the bathroom|the hospital|my car|the swimming pool|the restaurant|your brother"),
    *_each("do you like _|what is your favorite _|tell me about your favorite _",
           "food|movie|book|sport|animal|season|number|song|game|city|teacher|drink"),
    *_each("do you like _|do you love _|do you know _|can you see _",
           "cats|pizza|football|dancing|my sister|the snow|cooking|children|the mountains|swimming|chess|winter|me"
           "|peter"),
    *_each("count to _|can you count to _|please count to _",
           "ten|five|twenty|a hundred|seven|a million|zero"),
    *_each("tell me _|can you tell me _|please tell me _|I want to hear _",
           "a story|the news|the time|a secret|something new|a poem|the truth|the date|your opinion|the way home"
           "|a riddle|about history|about your family|a lie|the next train|the score"),
    *_each("what is your _|tell me your _|say your _|do you know my _|what is my _",
           "phone number|job|last name|email|country|hobby|language|dream|weight|mother's name|plan|salary|shoe size"),
    *_each("are you _",
           "hungry|tired|married|happy|busy|sure|my friend|from china|ready|angry|a doctor|a teacher|a dog|sleeping"
           "|listening|rich|afraid|in love|alone"),
    *_each("can you _|could you please _|would you _|do you want to _",
           "sing a song|dance|open the door|call my mother|send a message|play football|fly|write a letter|swim"
           "|cook dinner|turn on the light|wait a minute|speak french|drive home|set an alarm|order a taxi|go away"
           "|stop that"),
    *_each("where is _|how big is _|who knows _",
           "paris|my phone|the moon|rome|the exit|africa|london|tokyo|berlin|heaven"),
    *_each("how is _|how old is _|where does _ live|what is _ doing",
           "your mother|the king|your dog|the president|my friend|this tree|your brother|the neighbor|the old man"),
    *_each("_",
           "how tall are you|how fast can you run|how do you spell that|how far is it|how late is it"
           "|how many are you|why are you here|why do you say that|why is it dark|who is your father"
           "|who is the president|who made you|what is this|what is that|what is love|what is music|what is a robot"
           "|what is a computer|what is bread made of|what are you doing|what are you thinking|what day is it today"
           "|what year is it|what month is it|what time is it|what is the temperature|what is for dinner"
           "|what is on the menu|what is in the box|which one is better|which way is north|when is lunch"
           "|when do you sleep|when is the next bus|when did you wake up|where were you|where is everybody"
           "|is it late|is it true|is that all|is he coming|is this your car|is there a problem|it is cold"
           "|I am happy|I am fine|I like music|I like bread|I love coffee|my name is peter|my name is anna"
           "|I am twenty years old|I live in paris|I come from japan|my favorite color is green|the sky is blue"
           "|the weather is nice|a week has seven days|a spider is an animal|the dog is barking|the cat is asleep"
           "|today is sunday|on saturday I sleep|I was in rome|we went to london|the shop was full"
           "|the coffee is cold|a banana is a fruit|snow is falling|the grass is high|he lost a lot of blood"
           "|the robot is broken|nice to see you|good idea|good luck|good job|well done|very good|not bad|too bad"
           "|how nice|how sad|what a pity|what a day|oh no|of course|never mind|forget it|wait|stop|go on|again"
           "|louder please|slower please|I am sorry|excuse me|pardon me|nothing|something else|another question"
           "|one two three|four five six|three|seven|monday|paris|blue|hot and cold|big and small|plus"
           "|the number five|open the window|close the door|help him|name three animals|say something|say it again"
           "|repeat after me|tell me more|tell me everything|leave me alone|be quiet|shut up|come here|look there"
           "|listen to this|let us go|let me think|give me five|give me that|take it easy|have fun"),
)  # fmt: skip
TRAIN = tuple(dict.fromkeys((*WRITTEN, *NEAR)))

# Never trained on.
HELD_OUT = tuple(
    """
the ship arrived late in the harbour|my sister bought a green bicycle|who invented the telephone
please bring me the newspaper|why is the ocean salty|he jumped over the wooden fence
I need a ticket to the museum|what do you think about politics|the painter needs a longer ladder
how deep is the ocean|what is nine minus three|what is the capital of sweden|which animal has the longest neck
please open the garage|my uncle collects old coins|what color is a strawberry|how many wheels does a truck have
when does the concert begin|the bridge was built of stone|do you sell umbrellas|why are leaves falling
she lost her golden ring|can you read this letter|the dentist is on holiday
""".strip()
    .replace("\n", "|")
    .split("|")
)
